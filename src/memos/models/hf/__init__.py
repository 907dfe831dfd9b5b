"""Language models that run in this process, by transformers. Needs the extra `hf`; importing loads nothing."""
