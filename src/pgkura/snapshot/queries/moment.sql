-- The snapshot, exported; what it sees; where it lies in the WAL (the replay position on a standby).
select pg_catalog.pg_export_snapshot(),
       pg_catalog.pg_current_snapshot()::pg_catalog.text,
       case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
            else pg_catalog.pg_current_wal_insert_lsn() end::pg_catalog.text
