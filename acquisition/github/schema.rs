//! The columns of `silver.github`, once: the list and the places by which the processor writes them.

use crate::columns::columns;

columns! {
    "github" by Day
    ID = "id", Text, Exact, "The event's id; before 2015 made from its content.";
    TYPE = "type", Text, Exact, "`PushEvent` and so on, as GitHub names it.";
    ACTOR_LOGIN = "actor_login", Text, Exact, "Who did it.";
    ACTOR_ID = "actor_id", Integer, Exact, "Who did it, by number; absent in the form before 2015.";
    IS_BOT = "is_bot", Boolean, Exact, "Whether the actor's login ends with `[bot]` or GitHub calls its type `Bot`.";
    REPO_NAME = "repo_name", Text, Exact, "`OWNER/NAME`; `/` where the Events API of 2012 had no repository.";
    REPO_ID = "repo_id", Integer, Exact, "The repository by number; it survives renames.";
    ORG_LOGIN = "org_login", Text, Exact, "The organization that the repository belongs to.";
    ORG_ID = "org_id", Integer, Exact, "The organization by number.";
    ACTION = "action", Text, Exact, "What was done: `opened`, `closed`, `created`, `started`, `added`.";
    REF = "ref", Text, Exact, "The branch or tag: `refs/heads/main` of a push, the bare name of a creation or deletion.";
    REF_TYPE = "ref_type", Text, Exact, "What was created or deleted: `repository`, `branch`, `tag`.";
    MASTER_BRANCH = "master_branch", Text, Exact, "The default branch, as a creation states it.";
    HEAD = "head", Text, Exact, "The newest commit: after a push, or of the pull request's head.";
    BEFORE = "before", Text, Exact, "The newest commit before a push.";
    HEAD_REF = "head_ref", Text, Exact, "The branch that a pull request comes from.";
    BASE_REF = "base_ref", Text, Exact, "The branch that a pull request goes to.";
    PUSH_ID = "push_id", Integer, Exact, "The push by number.";
    PUSHER_TYPE = "pusher_type", Text, Exact, "`user` or `deploy_key`.";
    COMMIT_COUNT = "commit_count", Integer, Exact, "Commits of a push (the event lists 20 at the most) or of a pull request.";
    DISTINCT_COMMIT_COUNT = "distinct_commit_count", Integer, Exact, "Commits of a push that were new to the repository.";
    COMMIT_SHAS = "commit_shas", TextList, Exact, "Hashes of the listed commits.";
    COMMIT_MESSAGES = "commit_messages", TextList, Words, "Messages of the listed commits.";
    COMMIT_AUTHORS = "commit_authors", TextList, Exact, "Names of the authors of the listed commits.";
    NUMBER = "number", Integer, Exact, "Number of the issue, pull request or discussion in its repository.";
    TITLE = "title", Text, Words, "Title of the issue, pull request or discussion; name of the release or download.";
    BODY = "body", Text, Words, "Text of the comment or review; else of the issue, pull request, discussion or release.";
    STATE = "state", Text, Exact, "State of the issue, pull request or discussion after the event: `open`, `closed`.";
    LABELS = "labels", TextList, Exact, "Labels of the issue, pull request or discussion after the event.";
    USER_LOGIN = "user_login", Text, Exact, "Author of the issue, pull request, discussion or release.";
    AUTHOR_ASSOCIATION = "author_association", Text, Exact, "What the author of the text is to the repository: `OWNER`, `MEMBER`, `CONTRIBUTOR`, `NONE`.";
    COMMENT_COUNT = "comment_count", Integer, Exact, "Comments on the issue, pull request or discussion.";
    COMMENT_ID = "comment_id", Integer, Exact, "The comment by number.";
    COMMIT_ID = "commit_id", Text, Exact, "Hash of the commit that a comment, review or applied fork is about.";
    PATH = "path", Text, Exact, "The file that a comment is about.";
    REVIEW_STATE = "review_state", Text, Exact, "`approved`, `changes_requested`, `commented`, `dismissed`.";
    MERGED = "merged", Boolean, Exact, "Whether the pull request was merged.";
    DRAFT = "draft", Boolean, Exact, "Whether the pull request or release is a draft.";
    ADDITIONS = "additions", Integer, Exact, "Lines that the pull request adds.";
    DELETIONS = "deletions", Integer, Exact, "Lines that the pull request removes.";
    CHANGED_FILES = "changed_files", Integer, Exact, "Files that the pull request changes.";
    RELEASE_TAG = "release_tag", Text, Exact, "The tag of the release.";
    PRERELEASE = "prerelease", Boolean, Exact, "Whether the release is a pre-release.";
    FORKEE_FULL_NAME = "forkee_full_name", Text, Exact, "The new repository of a fork, `OWNER/NAME`.";
    MEMBER_LOGIN = "member_login", Text, Exact, "Whom it is about: the new member, the followed, the sponsored.";
    TEAM_NAME = "team_name", Text, Exact, "The team that was added to.";
    PAGES = "pages", TextList, Exact, "Names of the changed wiki pages.";
    GIST_ID = "gist_id", Text, Exact, "The gist.";
    DESCRIPTION = "description", Text, Words, "Description of the repository, fork, gist or download, where the event states it.";
    LANGUAGE = "language", Text, Exact, "Language of the repository, where the event states it.";
    URL = "url", Text, Exact, "Web page of what it is about, where the event states it.";
    PUBLIC = "public", Boolean, Exact, "Whether all may see it.";
    CREATED_AT = "created_at", Timestamp, Exact, "When it happened; the same as `event_time`.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_constant_is_the_place_of_its_column() {
        assert_eq!(SCHEMA.place("id"), ID);
        assert_eq!(SCHEMA.place("body"), BODY);
        assert_eq!(SCHEMA.place("created_at"), CREATED_AT);
        assert_eq!(CREATED_AT, SCHEMA.all().count() - 1);
    }
}
