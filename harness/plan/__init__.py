"""What a preset costs on this machine: jobs, hours and disk, before anything runs."""
