"""AI-GAN: a generator that attacks in one forward pass.

Source: Bai et al. (2023), "Towards Efficiently Evaluating the Robustness…".
"""
