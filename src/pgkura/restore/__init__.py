"""From a snapshot to a database: inspect the target, plan, execute exactly the plan."""
