"""Commands that look at a model; each module is one of them."""
