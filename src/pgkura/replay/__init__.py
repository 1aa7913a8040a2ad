"""From a base and the change log to a moment: targets, choice, folding, applying."""
