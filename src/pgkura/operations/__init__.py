"""One file per verb: plan, confirm, execute, journal the outcome. Shells speak to this room only."""
