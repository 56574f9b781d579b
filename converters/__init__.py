"""One package per dataset: native reader, converter, native writer, dataset card."""
