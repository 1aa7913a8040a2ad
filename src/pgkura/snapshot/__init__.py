"""Taking a snapshot: everything at one instant, without hurting the database it is taken from.

ACCESS SHARE first, the snapshot after it, every unit of reading verified under its own lock, a watcher that gives
way to whoever waits on us. `take` is the one verb; the planners (locks, connections, units) and the ledger of
what was read are pure.
"""
