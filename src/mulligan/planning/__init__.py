"""What a run will take and be worth, before anything is computed."""
