"""Evidence of a backdoor: the rule, its tracks and alert ids, as pure functions."""
