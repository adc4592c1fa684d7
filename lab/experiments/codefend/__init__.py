"""The experiment on backdoors: CoDefend's tables and figures, and repair beside other ways of curing a model."""
