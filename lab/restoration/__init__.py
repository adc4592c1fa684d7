"""Restoration in the laboratory: PSNR and accuracy of the rebuilt pictures."""
