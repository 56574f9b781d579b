"""Tools for developers: nothing here is collected by pytest."""
