"""Who may do what in a registry with accounts.

A repository belongs to the group that its name begins with: `team/app` to `team`. Members of a group pull, push and
delete what is the group's; each user is a group of one as well. A repository is private until somebody publishes it:
then everyone may pull it and find it. To all who may not see it, a private repository looks like one that is not there.
"""
