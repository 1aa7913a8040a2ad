-- The change log by SQL functions. No tenant's code runs here.

-- name: identity
-- What IDENTIFY_SYSTEM says.
select (select s.system_identifier::pg_catalog.text from pg_catalog.pg_control_system() s),
       case when pg_catalog.pg_is_in_recovery() then '0'
            else pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) end,
       case when pg_catalog.pg_is_in_recovery() then '0/0'
            else pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text end

-- name: confirmed
-- How far the slot has been read.
select coalesce((select s.confirmed_flush_lsn from pg_catalog.pg_replication_slots s where s.slot_name = %s),
                '0/0')::pg_catalog.text

-- name: advance
-- All before is stored: the server may forget it.
select a.end_lsn::pg_catalog.text from pg_catalog.pg_replication_slot_advance(%s, %s) a

-- name: spill
-- Where a large transaction goes before its first row comes.
select pg_catalog.current_setting('work_mem'), pg_catalog.current_setting('temp_file_limit')
