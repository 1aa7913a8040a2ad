-- Where the server stands in its history; no row on a standby, whose snapshots do not list what is running.
-- A data folder can be put back only under a stopped server: then everything else here may look the same.
-- The timeline is read from the name of the WAL file: the control file learns of a promotion only at a checkpoint.
select pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8), d.oid::int8,
       pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())::pg_catalog.text
from pg_catalog.pg_database d
where d.datname = pg_catalog.current_database() and not pg_catalog.pg_is_in_recovery()
