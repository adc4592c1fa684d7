"""AI-GAN's tables: success white-box, black-box and under defences, and time."""
