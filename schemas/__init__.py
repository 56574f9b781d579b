"""The contract as data. Installed, this folder is the package `datakit.schema.tables`."""
