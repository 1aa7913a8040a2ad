"""The command line: parse, call one operation, render. No decision lives here."""
