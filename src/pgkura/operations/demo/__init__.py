"""The story that `make demo` tells: a platform is made, backed up, destroyed, restored, and proven equal."""
