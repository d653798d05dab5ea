"""What recorded runs tell: their loss curves, and how detectors would have judged them."""
