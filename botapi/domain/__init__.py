"""Rules as pure functions: values in, decisions out."""
