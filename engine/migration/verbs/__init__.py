"""The verbs: one object each, which plans (in the operator's words) and acts."""
