"""All cases: means, shares and comparisons with the patient as the unit, and limits on them."""
