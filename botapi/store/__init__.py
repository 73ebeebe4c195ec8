"""An ordered document store with tags; three engines behind one protocol."""
