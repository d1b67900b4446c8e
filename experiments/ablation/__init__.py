"""What each part of a method is worth, what its dials trade, how many backdoors fit."""
