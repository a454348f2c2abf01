"""How facts flow: lanes, tables, collector, reports, command line. Read `streams.app` first."""
