"""Comparisons that train, measure and print one table: what the field's methods reach, on data that a user brings.

plan.py       which networks are trained on which data, read from a recipe file (recipes/*.yaml)
methods.py    trains them one after another, and goes on where it was stopped
score.py      what each says of the test images, beside its exit-free twin
show.py       the table and the pictures

dense.py, scenes.py, miou.py and dense_show.py are the same for exits that answer every pixel.

policy_plan.py, policies.py and policies_show.py run the policies of the table side by side in scenarios/*.yaml, with
the settings of policies.yaml.
"""
