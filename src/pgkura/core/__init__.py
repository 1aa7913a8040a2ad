"""Words every other room uses: errors, names, facts, outcomes, progress. Standard library only."""
