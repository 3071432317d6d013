"""The pages of the documentation, and the script that makes a site of them."""
