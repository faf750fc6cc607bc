"""Check records before they teach a model anything, and repair what can be repaired mechanically."""
