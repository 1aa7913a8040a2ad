"""The only door to a server: endpoints, pinned sessions, catalog readers. Nothing else imports the driver."""
