"""The judge of a defence: attacks that know it, and a checklist that finds out when they prove nothing.

`pointillist lab red-team`. The checklist follows Carlini et al. 2019, "On Evaluating Adversarial Robustness"; signs of
gradient masking follow Athalye, Carlini and Wagner 2018, "Obfuscated Gradients Give a False Sense of Security".

A job (`jobs`) is one attack on one variant of the defence (`defences`) at one strength; a plan (`plan`) says which jobs
on how many pictures, within a budget of minutes; `measure` runs them, batch by batch, and keeps what is done; `signs`
and `checklist` judge the outcomes; `pages` writes them down.
"""
