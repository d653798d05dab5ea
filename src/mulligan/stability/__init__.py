"""What heals a run: the detector, the policy, the ledger and the snapshots, without a Trainer."""
