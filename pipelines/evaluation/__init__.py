"""How good an order of candidates is: benchmark sets, measures, and what chance may have done."""
