-- Whether this is a standby, and how it treats queries that are in the way of what it replays.
select pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('hot_standby_feedback') = 'on',
       pg_catalog.current_setting('max_standby_streaming_delay')
