"""Parity with peers: the loss code of TRL and verl on the same batches, stored as fixtures and re-run on demand."""
