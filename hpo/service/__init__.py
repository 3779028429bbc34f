"""What runs the studies of a database: the optimizer process, decisions after reports, upkeep and the fallback."""
