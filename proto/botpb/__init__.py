"""Generated protobuf code: the signed session and bots.cfg; `make proto` after an edit."""
