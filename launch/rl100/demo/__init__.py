"""The whole loop on one screen: demonstrations, training, deployment, evaluation, report."""
