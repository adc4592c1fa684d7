"""AI-GAN's tables: success white-box, black-box and against defences, and time."""
