package peer

import (
	"net/http"
	"strconv"
)

// Every answer says which process gives it, by the number that the process tells
// in its gossip meta. An address says little: it may be that of another member, by
// a copied advertise line or because two machines have changed places, and what that
// one acknowledges the right one does not know.

// answererField is the header field of an answer that names its process.
const answererField = "Groupcache-Node"

// An OtherNode error says that a call was answered by another node than the one that
// was called, whose number is Life; 0: it tells none.
type OtherNode struct{ Life uint64 }

func (OtherNode) Error() string {
	return "peer: another node answers at its address: correct what it advertises"
}

// check returns an error unless the node itself has given an answer with a header.
func (n Node) check(answer http.Header) error {
	if n.Life == 0 {
		return nil
	}
	life, err := strconv.ParseUint(answer.Get(answererField), 16, 64)
	if err != nil {
		life = 0
	}
	if life != n.Life {
		return OtherNode{life}
	}
	return nil
}

// sign names a process as the one that answers.
func sign(answer http.Header, life uint64) {
	if life != 0 {
		answer.Set(answererField, strconv.FormatUint(life, 16))
	}
}
