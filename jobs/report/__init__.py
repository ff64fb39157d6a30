"""Reports: pages of HTML that are whole in one file. What they tell comes from the rooms above."""
