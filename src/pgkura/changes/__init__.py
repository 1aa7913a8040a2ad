"""The change log: receive, cut, store, read back."""
