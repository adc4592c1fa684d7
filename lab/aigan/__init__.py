"""AI-GAN: a generator that attacks in one pass (Bai et al. 2023, "Towards Efficiently Evaluating the Robustness…")."""
