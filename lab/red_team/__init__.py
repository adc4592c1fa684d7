"""The evaluation of a defence: attacks that know it, and a checklist that detects unreliable results.

The command is `pointillist lab red-team`. The checklist follows Carlini et al. 2019, "On Evaluating Adversarial
Robustness". Signs of gradient masking follow Athalye, Carlini and Wagner 2018, "Obfuscated Gradients Give a False Sense
of Security".

A job (`jobs`) is one attack on one variant of the defence (`defences`) at one strength. A plan (`plan`) chooses the
jobs and their number of pictures, within a budget of minutes. `measure` runs them batch by batch and keeps finished
batches. `signs` and `checklist` judge the outcomes; `pages` writes them down.
"""
