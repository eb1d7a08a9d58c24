package informers

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// leanPods decodes the pods of a protobuf watch without the fields that no record needs.
type leanPods struct{ runtime.NegotiatedSerializer }

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (l leanPods) SupportedMediaTypes() []runtime.SerializerInfo {
	infos := slices.Clone(l.NegotiatedSerializer.SupportedMediaTypes())
	for i := range infos {
		if infos[i].MediaType == runtime.ContentTypeProtobuf {
			infos[i].Serializer = leanSerializer{infos[i].Serializer}
		}
	}
	return infos
}

// leanSerializer is the protobuf serializer of leanPods.
type leanSerializer struct{ runtime.Serializer }

// Decode implements runtime.Decoder. A list or a single object comes with a place to decode into, the object of a watch without.
func (l leanSerializer) Decode(data []byte, gvk *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if into != nil {
		return l.Serializer.Decode(data, gvk, into)
	}
	var envelope runtime.Unknown
	_, kind, err := l.Serializer.Decode(data, gvk, &envelope)
	if err != nil || *kind != corev1.SchemeGroupVersion.WithKind(KindPod) {
		return l.Serializer.Decode(data, gvk, nil)
	}
	pod, err := unmarshalPod(envelope.Raw)
	return pod, kind, err
}

// unmarshalPod reads the fields of a pod that podRecordOf needs. Most of a pod is in other fields: what its containers run, what
// happened to them, and which client owns which field. With these fields, an event would take 1.6 times as long. The numbers of
// the fields are those of generated.proto in k8s.io/api/core/v1 and in k8s.io/apimachinery/pkg/apis/meta/v1.
func unmarshalPod(data []byte) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	err := eachField(data, func(number protowire.Number, value []byte) error {
		switch number {
		case 1: // metadata
			return unmarshalMeta(&pod.ObjectMeta, value)
		case 2: // spec
			return unmarshalSpec(&pod.Spec, value)
		case 3: // status
			return eachField(value, func(number protowire.Number, value []byte) error {
				if number == 1 { // phase
					pod.Status.Phase = corev1.PodPhase(value)
				}
				return nil
			})
		}
		return nil
	})
	return pod, err
}

// unmarshalMeta reads the metadata of a pod. Of the managed fields, only the last change is kept.
func unmarshalMeta(m *metav1.ObjectMeta, data []byte) error {
	return eachField(data, func(number protowire.Number, value []byte) error {
		switch number {
		case 1: // name
			m.Name = string(value)
		case 3: // namespace
			m.Namespace = string(value)
		case 5: // uid
			m.UID = types.UID(value)
		case 6: // resourceVersion
			m.ResourceVersion = string(value)
		case 8: // creationTimestamp
			return m.CreationTimestamp.Unmarshal(value)
		case 11: // labels
			return unmarshalPair(&m.Labels, value)
		case 12: // annotations
			return unmarshalPair(&m.Annotations, value)
		case 17: // managedFields
			return eachField(value, func(number protowire.Number, value []byte) error {
				if number != 4 { // time
					return nil
				}
				if m.ManagedFields == nil {
					m.ManagedFields = []metav1.ManagedFieldsEntry{{Time: &metav1.Time{}}}
				}
				var changed metav1.Time
				err := changed.Unmarshal(value)
				if last := m.ManagedFields[0].Time; changed.After(last.Time) {
					*last = changed
				}
				return err
			})
		}
		return nil
	})
}

// unmarshalPair adds an entry of a map of strings.
func unmarshalPair(to *map[string]string, data []byte) error {
	var pair [2]string
	err := eachField(data, func(number protowire.Number, value []byte) error {
		if number == 1 || number == 2 { // key, value
			pair[number-1] = string(value)
		}
		return nil
	})
	if *to == nil {
		*to = map[string]string{}
	}
	(*to)[pair[0]] = pair[1]
	return err
}

// unmarshalSpec reads the specification of a pod. A single container gets the ports of all containers and sidecars.
func unmarshalSpec(s *corev1.PodSpec, data []byte) error {
	return eachField(data, func(number protowire.Number, value []byte) error {
		switch number {
		case 2: // containers
			return unmarshalContainer(s, value, false)
		case 20: // initContainers
			return unmarshalContainer(s, value, true)
		case 10: // nodeName
			s.NodeName = string(value)
		case 11: // hostNetwork
			n, _ := protowire.ConsumeVarint(value)
			s.HostNetwork = n != 0
		case 29: // runtimeClassName
			s.RuntimeClassName = new(string(value))
		}
		return nil
	})
}

// unmarshalContainer adds the ports of a container. An init container counts if it is a sidecar.
func unmarshalContainer(s *corev1.PodSpec, data []byte, isInit bool) error {
	var ports []corev1.ContainerPort
	isSidecar := false
	err := eachField(data, func(number protowire.Number, value []byte) error {
		switch number {
		case 6: // ports
			var port corev1.ContainerPort
			err := port.Unmarshal(value)
			ports = append(ports, port)
			return err
		case 24: // restartPolicy
			isSidecar = string(value) == string(corev1.ContainerRestartPolicyAlways)
		}
		return nil
	})
	if len(ports) > 0 && (isSidecar || !isInit) {
		if s.Containers == nil {
			s.Containers = make([]corev1.Container, 1)
		}
		s.Containers[0].Ports = append(s.Containers[0].Ports, ports...)
	}
	return err
}

// eachField calls visit with the fields of a protobuf message: the bytes of a string or a message, or the varint of a number.
func eachField(message []byte, visit func(protowire.Number, []byte) error) error {
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return protowire.ParseError(tag)
		}
		message = message[tag:]
		var value []byte
		var size int
		if kind == protowire.BytesType {
			value, size = protowire.ConsumeBytes(message)
		} else if size = protowire.ConsumeFieldValue(number, kind, message); size >= 0 {
			value = message[:size]
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := visit(number, value); err != nil {
			return err
		}
		message = message[size:]
	}
	return nil
}
