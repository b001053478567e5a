"""What is said of any method, and what every method must hold to, whatever its equation.

May import the contract files and `records`. No method is known here by name.
Start reading at `cards` (what a method says of itself) and `conformance` (what `fspo method check` demands).
"""
