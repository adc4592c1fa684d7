"""Many cameras in one process: their list, their tasks, and the file that lists real cameras."""
