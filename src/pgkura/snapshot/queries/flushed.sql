-- Whether the WAL up to the snapshot is safe on the server's disk: a crash cannot take back what we have stored.
select case when pg_catalog.pg_is_in_recovery() then true
            else pg_catalog.pg_current_wal_flush_lsn() >= %s::pg_catalog.pg_lsn end
