"""Rooms and scans: their annotation, the questions posed of it, rooms made and filmed, scans read and curated."""
